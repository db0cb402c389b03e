"""A host is emptied before maintenance, and filled again with what was taken away. docs/fleet.md

records   what is known of evacuations, in the coordinator's store: the truth, from which a restart goes on
plan      which containers go where, by the census and migrate.placement
runner    a thread an evacuation: moves, several at once, retried elsewhere
service   the service FleetEvacuations
"""
