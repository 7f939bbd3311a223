"""The running whole: what is built from the configuration, policies, reload, metrics, shutdown."""
