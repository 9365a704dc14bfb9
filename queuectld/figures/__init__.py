"""What monitoring is told: counted, put into one table, written as text. Pure: no clock, no I/O."""
