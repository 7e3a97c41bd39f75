"""Text: number formats and the glossary."""
