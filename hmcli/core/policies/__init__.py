"""Memory policies, one to a file: what may a query frame read? Found by name through hmcli.registry."""
