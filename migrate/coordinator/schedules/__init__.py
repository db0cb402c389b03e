"""Jobs that empty hosts at their times: one host, or the hosts of a group one after the other. docs/fleet.md, docs/adr/0016

times     when a job is due: cron, time zone, blackouts, windows; pure
records   jobs and their runs in the coordinator's store: the truth, from which a restart goes on
hook      a command of the operator's, which outlives this process and is never run twice at once
rolling   one run, host by host: evacuate, hook, wait, bring home
clock     the thread that begins what is due, and the threads of runs
service   the service FleetSchedules
"""
