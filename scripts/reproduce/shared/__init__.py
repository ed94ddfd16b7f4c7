"""What every reproduction needs: kept results, pages and statistics."""
