"""The routes: POST records, GET reads; none launches anything."""
