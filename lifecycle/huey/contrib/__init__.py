"""The contributed modules of Huey that have a counterpart."""
