"""Floor 0: pure logic. No I/O, no clock, no HTTP, no pytest."""
