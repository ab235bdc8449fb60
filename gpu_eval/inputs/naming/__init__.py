"""How the files of a split are named: their endings, their folders, and what is said where no names agree."""
