"""The embedded world: heads with a known joint distribution of attributes, and a reporter with a known bias."""
