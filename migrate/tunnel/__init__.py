"""SSH: the control tunnel (paramiko), the bulk tunnel (OpenSSH), the certificates of both."""
