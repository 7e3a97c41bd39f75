"""Trained chains as MLflow models, which can be registered, loaded elsewhere and served."""
