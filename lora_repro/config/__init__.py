"""What a run is: the configuration's schema, how it is composed and resolved, and the run's id. No torch."""
