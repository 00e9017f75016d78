"""Reading other programs' weights safely, one file a family."""
