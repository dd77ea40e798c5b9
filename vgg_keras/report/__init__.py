"""The paper's tables, figures and a page of results."""
