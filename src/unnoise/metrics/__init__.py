"""How good is it: feature statistics, the field's metrics as pure functions, and evaluations that state their
protocol.
"""
