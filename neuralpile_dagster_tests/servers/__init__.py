"""Imitations of the services that the package talks to, and real ones of this machine, for tests and benches.

Also the NWB files and listings that tests and benches make up: `nwb_files`, `listings`.

They keep to what the real services sent, version by version, and can be told to fail; that is of use to whoever changes
this package, not to who uses it, so they are not in the wheel. They import nothing else of the tests.
"""
