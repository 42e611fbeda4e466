"""The living page and its REST interface: `steersearch serve`."""
