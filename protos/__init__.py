"""The wire contract: .proto sources and the code generated from them, side by side. Imports nothing of ours."""
