"""What a run that takes hours needs: nobody needs this folder to follow the book."""
