"""The report of a results folder: one page that needs no network, the same as Markdown, and rows for programs."""
