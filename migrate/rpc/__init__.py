"""What both sides of a gRPC call share: channels, error mapping, protocol version."""
