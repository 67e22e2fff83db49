"""Serves people: what somebody runs by hand. No boot imports anything from here."""
