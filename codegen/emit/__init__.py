"""The parts of emitted Python that every generator shares."""
