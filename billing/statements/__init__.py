"""Monthly statements: how they are made (``making``), and as PDF (``document``) and CSV (``sheet``)."""
