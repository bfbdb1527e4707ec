"""What tests share: servers, databases, plugins, things that stand for others."""
