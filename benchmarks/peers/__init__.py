"""Who else keeps a queue in a Django database? One file each, run in an environment of its own."""
