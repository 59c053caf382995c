"""The linear face model: its equations, its data, its files and its texture space."""
