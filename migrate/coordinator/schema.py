"""The tables of the coordinator's database, version by version: a new one is added at the end, none is ever changed."""

from __future__ import annotations

from migrate.saga import journal

SCHEMA = (
    (
        "create table settings(name text primary key, value text not null)",
        """create table hosts(
            name text primary key,
            address text not null,
            port integer not null,
            user text not null,
            host_keys text not null,
            added_unix_ns integer not null
        )""",
        """create table containers(
            id text primary key,
            name text not null unique,
            spec text not null,
            owner text not null references hosts(name),
            epoch integer not null,
            desired text not null,
            address text not null unique,
            mac text not null unique,
            ids_base integer not null unique,
            created_unix_ns integer not null
        )""",
        """create table migrations(
            id text primary key,
            container_id text not null,
            container text not null,
            source text not null,
            target text not null,
            epoch integer not null,
            state text not null,
            reason text not null,
            mode text not null,
            max_downtime_s real not null,
            request_id text,
            started_unix_ns integer not null,
            finished_unix_ns integer not null default 0,
            error text
        )""",
        "create unique index one_move_a_container on migrations(container_id)"
        " where state in ('running','waiting','needs-attention')",
        "create view active_migrations as select * from migrations where state in"
        " ('running','waiting','needs-attention')",
        "create unique index one_move_a_request on migrations(request_id) where request_id is not null",
        *journal.SCHEMA,
    ),
    ("alter table migrations add column transfer text not null default '{}'",),
    ("alter table migrations add column precopy text not null default '{}'",),
    (
        "alter table hosts add column labels text not null default '{}'",
        "alter table hosts add column cordon text",  # JSON of Cordon; null = it is not
    ),
    ("alter table migrations add column skip text not null default '[]'",),
    (  # migrate/coordinator/evacuation/records.py writes and reads these
        """create table evacuations(
            id text primary key,
            kind text not null,
            host text not null,
            state text not null,
            reason text not null,
            options text not null,
            request_id text unique,
            planned integer not null default 0,
            cancelled integer not null default 0,
            predicted_s real not null default 0,
            started_unix_ns integer not null,
            finished_unix_ns integer not null default 0
        )""",
        "create unique index one_evacuation_a_host on evacuations(host) where state='running'",
        """create table evacuation_items(
            evacuation_id text not null references evacuations(id),
            container_id text not null,
            position integer not null,
            item text not null,
            primary key(evacuation_id, container_id)
        )""",
    ),
    (  # membership.py and health.py
        "alter table hosts add column joined integer not null default 0",  # by `host add`; 0 = by the configuration
        "alter table hosts add column login text not null default ''",
        "alter table hosts add column pulse text",  # JSON of Pulse; null = it has never been watched
        """create table host_events(
            sequence integer primary key autoincrement,
            host text not null,
            action text not null,
            unix_ns integer not null,
            attributes text not null
        )""",
    ),
    (  # migrate/coordinator/schedules/records.py writes and reads these
        """create table schedules(
            name text primary key,
            job text not null,
            paused integer not null default 0,
            next_unix_ns integer not null,
            created_unix_ns integer not null
        )""",
        """create table schedule_runs(
            id text primary key,
            schedule text not null references schedules(name),
            job text not null,
            cause text not null,
            state text not null,
            due_unix_ns integer not null,
            window_end_unix_ns integer not null,
            why text not null default '',
            cancelled integer not null default 0,
            started_unix_ns integer not null,
            finished_unix_ns integer not null default 0
        )""",
        "create unique index one_run_a_schedule on schedule_runs(schedule) where state='running'",
        """create table schedule_legs(
            run_id text not null references schedule_runs(id),
            host text not null,
            position integer not null,
            leg text not null,
            primary key(run_id, host)
        )""",
    ),
    ("alter table migrations add column rehearsal integer not null default 0",),
    (  # policies.py writes and reads it; a move's row names those that it took something from
        "create table policies(name text primary key, policy text not null)",
        "alter table migrations add column policies text not null default '{}'",
        "alter table migrations add column priority text not null default 'normal'",
    ),
)
