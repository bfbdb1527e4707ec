"""Swagger UI, which shows what is live, out of the package: https://swagger.io/tools/swagger-ui/."""
