"""The OpenAPI document of what is live: written from the route table at the first request."""
