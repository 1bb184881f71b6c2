"""The literature's claims as data with sources, and one way of computing each kind of figure."""
