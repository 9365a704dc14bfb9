"""The command line of QueueCTL: plain dictionaries and `json` over one blocking socket, so that it starts at once."""
