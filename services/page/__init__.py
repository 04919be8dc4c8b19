"""What a person sees in a browser: HTML made here, charts drawn by plotly.js out of its installed package, and the same as one file."""
