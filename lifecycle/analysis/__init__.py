"""Analysis of any table and any recorded trace: properties, grammar, legal sequences."""
