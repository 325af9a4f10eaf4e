"""Statements about any table and any recorded trace: properties, grammar, legal sequences."""
