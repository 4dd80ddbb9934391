"""Making a run and carrying it out. The only package beside ``engine`` that knows ranks."""
