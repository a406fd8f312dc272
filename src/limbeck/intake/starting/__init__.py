"""From what somebody has (a model, its data) to the files of a first run: `limbeck init`."""
