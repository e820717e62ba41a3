"""The trainer: a snapshot of ranked answers goes in, a better language model comes out."""
