"""Small programs that can prove they survived a move. Each stands alone: standard library, one file, Python 3.9 or
newer.

They run in a container (but `redis_client.py` as well outside of one), check themselves all the time, and write
what they found as one JSON object to a status file, whole or not at all, five times a second:

    {"token": "...", "count": 17, "problems": []}

`token` is made of random bytes when the program starts and is kept in memory only: the same token after a move is
the same process, not a new one. `count` only ever grows. `problems` keeps everything that was ever wrong.
"""
