"""The checker behind shape annotations in tests: as strict as beartype, but an int is a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
