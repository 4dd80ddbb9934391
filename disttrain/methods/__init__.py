"""What a recipe adds to a plain step: one contract (``base.Method``), one small file each."""
