"""strawberry-graphql: a schema"""
import strawberry

EDIT = 0

@strawberry.type
class Query:
    @strawberry.field
    def edit(self) -> int:
        return EDIT

schema = strawberry.Schema(Query)

def answer():
    return schema.execute_sync("{ edit }").data["edit"]
