"""Commands over MQTT."""
