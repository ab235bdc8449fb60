"""From a location to label values: where files are, which belong together, what their pixels say."""
