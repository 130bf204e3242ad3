"""Message brokers whose messages are events: Redis, NATS, MQTT."""
