"""One page that a person wants to read: what runs, studies, branches and scalings have measured, as a single HTML file."""
