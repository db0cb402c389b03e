"""The transfer process of one move and side, and the frames that two of them speak."""
