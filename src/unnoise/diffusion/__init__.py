"""The mathematics: noise schedules, denoisers, samplers, objectives, likelihood. Imports torch only."""
