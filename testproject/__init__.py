"""Which site shows every feature? The one of the demo and of the acceptance tests."""
