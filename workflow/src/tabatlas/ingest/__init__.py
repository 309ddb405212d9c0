"""Ingest: all normalized h5ads → one SOMA experiment; `manifest.json`, written last, seals it.

`register` gives every cell its `soma_joinid` and writes obs, var and empty matrices; one `append`
per dataset writes its counts at those rows; `seal` reads everything back and compares it.
"""
