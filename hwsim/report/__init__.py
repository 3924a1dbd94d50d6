"""What a run says: data with a schema, a terminal page, files, and what one bit more or fewer would change."""
